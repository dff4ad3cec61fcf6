// Days of the search are those of the reader's zone: says by how much UTC is ahead.

const form = document.getElementById("search");

form.addEventListener("formdata", ({ formData }) => {
  for (const [name, value] of [...formData]) {
    if (!value.trim()) {
      formData.delete(name);
    }
  }
  for (const name of ["since", "until"]) {
    const day = formData.get(name);
    if (day) {
      const midnight = new Date(`${day}T00:00:00`);
      formData.set(`${name}Offset`, midnight.getTimezoneOffset());
    }
  }
});

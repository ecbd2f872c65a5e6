for (const box of document.querySelectorAll("nav input")) {
  const show = () => document.getElementById("picture").classList.toggle("hide-" + box.value, !box.checked);
  box.addEventListener("change", show);
  show();
}
